"""Files of samples: reading, writing, and the card that describes them."""
