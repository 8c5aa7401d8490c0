"""What families of class-conditional denoising networks share: recipe, checkpoint, training."""
