"""What is given is checked: types of arguments, devices, finite tensors."""
