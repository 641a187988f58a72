"""How the work is laid over devices. Today one process; what must be asked of all ranks is already asked here."""
