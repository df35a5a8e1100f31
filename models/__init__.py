"""The toy: data modules, encoders, fusion and one LightningModule, written to be read."""
