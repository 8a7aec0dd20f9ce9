"""What comes from elsewhere, read: nothing is executed, no link followed, and memory is bounded."""
