"""Planning without training: candidate methods, their exact parameter counts, memory and time, a recommendation."""
