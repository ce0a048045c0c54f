"""Networks: U-Nets for images, a residual network for vectors."""
