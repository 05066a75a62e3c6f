"""The engines that compute and apply gradients: plain torch or DeepSpeed, behind one protocol."""
