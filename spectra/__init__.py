"""What a spectrum is: reading, harmonising, cleaning, storing; and the molecules behind the labels."""
