"""Engines that exist, behind one small interface (contracts.Engine): llama.cpp, vLLM, any OpenAI-compatible address."""
