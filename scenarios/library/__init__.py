"""Bundled scenarios, as package data: one YAML file each."""
