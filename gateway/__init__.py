"""HTTP in, Redis on the hot path: the gateway, its command line and its dev servers."""
