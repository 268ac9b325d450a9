"""What ``./run`` adds on a developer's machine: real servers, a signing key, one supervisor."""
