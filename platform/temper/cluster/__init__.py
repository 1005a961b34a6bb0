"""What runs where: launching runs, sweeping, evaluating, and reading images through Ray."""
