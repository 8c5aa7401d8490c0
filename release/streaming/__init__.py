"""Images that stay in the files of their release until they are needed."""
