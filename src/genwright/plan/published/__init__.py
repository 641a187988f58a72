"""Other people's trainings: how their frameworks run the step, and their tables of measurements, read as setups."""
