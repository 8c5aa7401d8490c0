"""Class lists: which label, id, name and prompt a class has."""
