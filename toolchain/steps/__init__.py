"""The steps of `toolchain/setup`, one module each, and what they share (`cache`, `run`)."""
