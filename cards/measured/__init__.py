"""Result files as people compare them: cells, tables, changes by class."""
