"""Videos found again: features of many kept in a folder, the library, and asked for what is like another video."""
