"""Numbered SQL files, applied once each in order; a changed file is refused by its checksum."""
