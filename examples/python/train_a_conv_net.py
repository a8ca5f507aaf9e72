"""A small convolutional net with a subspace head, trained in PyTorch: stripes of four directions."""

import torch
from torch import nn

from subspan.torch import GrassmannLinear, GrassmannSGD

torch.manual_seed(0)
STEPS = [(1, 0), (0, 1), (1, 1), (1, -1)]


def stripes(n):
    """Noisy 12 x 12 images and the direction of their stripes."""
    labels = torch.randint(0, 4, (n,))
    i, j = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    direction = torch.tensor(STEPS, dtype=torch.float32)[labels]
    phase = direction[:, :1, None] * i + direction[:, 1:, None] * j
    images = torch.sin(1.5 * phase + 6.28 * torch.rand(n, 1, 1)) + 0.5 * torch.randn(n, 12, 12)
    return images[:, None], labels


net = nn.Sequential(
    nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(),
    nn.Linear(144, 32), GrassmannLinear(32, 4, k=4, gamma=10.0),
)
backbone = torch.optim.AdamW(GrassmannSGD.rest(net), lr=3e-3)
optimizer = GrassmannSGD(net, lr=0.1, backbone=backbone)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=150)

for step in range(150):
    images, labels = stripes(64)
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(images), labels)
    loss.backward()
    optimizer.step()
    schedule.step()

images, labels = stripes(1000)
accuracy = (net(images).argmax(1) == labels).float().mean().item()
print(f"accuracy on new images: {accuracy:.1%}")
assert accuracy > 0.9
