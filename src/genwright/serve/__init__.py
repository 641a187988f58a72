"""The gateway: one OpenAI-compatible door in front of engines that exist. No torch here."""
