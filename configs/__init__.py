"""Settings that ship with the package: yaml files, one folder a subject."""
