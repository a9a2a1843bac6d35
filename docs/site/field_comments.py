"""What the site says of a class's attributes: the comment behind a field, on its line, is its documentation, and of a
recipe's field its metadata; what methods set without a word about it is left out."""

import ast
import io
import tokenize
from typing import Any

from griffe import Attribute, Class, Docstring, Extension


class FieldComments(Extension):
    def on_attribute_instance(self, *, node: Any, attr: Attribute, **_: Any) -> None:
        if attr.docstring is not None or not isinstance(node, (ast.Assign, ast.AnnAssign)):  # a property is neither
            return
        if attr.parent is None or not attr.parent.is_class:
            return
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        attr.extra["site"]["field"] = isinstance(target, ast.Name)  # not self.name
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "_value":  # (default, help, …)
            attr.value = attr.value.arguments[0]
            attr.docstring = Docstring(ast.literal_eval(node.value.args[1]), lineno=node.lineno, parent=attr)
            return
        lines = attr.lines_collection[attr.filepath][node.lineno - 1 : node.end_lineno]
        text = "\n".join(line.strip() for line in lines)
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        if comments := [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]:
            said = " ".join(comments).replace("[", r"\[")  # or it would be a link
            attr.docstring = Docstring(said, lineno=node.lineno, parent=attr)

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        for name, member in list(cls.members.items()):
            if member.is_attribute and member.docstring is None and member.extra["site"].get("field") is False:
                del cls.members[name]
