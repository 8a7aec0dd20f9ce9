"""What a training will hold in memory on each rank, before it is started and without a GPU."""
