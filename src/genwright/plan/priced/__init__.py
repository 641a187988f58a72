"""What a trace costs: bytes through the allocator, seconds through a device's speeds and links, joules through its watts."""
