"""What synth-data renders: people, their motions, cameras, lights and backdrops, all drawn from (seed, number)."""
