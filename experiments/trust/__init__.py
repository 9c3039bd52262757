"""What results are worth: measured against arithmetic of fifty digits, and by breaking the code."""
