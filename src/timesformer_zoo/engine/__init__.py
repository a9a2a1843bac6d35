"""Many files: what is done to a video, done to all of them, in this process or on a Ray cluster."""
