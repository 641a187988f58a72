"""How the work is laid over devices: placements, sharding, each rank's share, the one norm, and the workers themselves."""
