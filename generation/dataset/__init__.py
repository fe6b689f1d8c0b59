"""The data set on disk: a `ViewSet` as a folder that every nerfstudio method reads, and back."""
