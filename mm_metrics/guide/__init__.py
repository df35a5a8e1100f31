"""Pages to read; their examples run.

- `mm_metrics.guide.questions`: what people ask, each answered in a few lines
- `mm_metrics.guide.baselines`: what stands in for a hidden modality, and which one to take
- `mm_metrics.ablation`: what is proved of an ablation, and what is left to faith
- `mm_metrics.guide.intervals`: how sure a number is, and what groups do to it
- `mm_metrics.guide.loops`: plain PyTorch on one process or many, Fabric, Accelerate
- `mm_metrics.guide.outputs`: every key, file and exit code
"""
