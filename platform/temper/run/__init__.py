"""What is done with a run or a model from elsewhere: evaluating, verifying, merging. Without Ray."""
