"""NAS-Bench-101's network in PyTorch, written from its description: no library has one to install.

A cell is a matrix (lists of 0 and 1) and labels; every vertex of it lies on a path from input to
output.
"""

import torch


class ConvBNReLU(torch.nn.Module):
    def __init__(self, channels_in, channels, size):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels_in, channels, size, padding=size // 2, bias=False)
        self.norm = torch.nn.BatchNorm2d(channels)
        self.relu = torch.nn.ReLU()

    def forward(self, x):
        return self.relu(self.norm(self.conv(x)))


def channels_of_vertices(matrix, channels_in, channels):
    """How many channels each vertex of a cell has."""
    size = len(matrix)
    out = size - 1
    found = [0] * size
    found[0], found[out] = channels_in, channels
    parts = [vertex for vertex in range(1, out) if matrix[vertex][out]]
    for number, vertex in enumerate(parts):
        found[vertex] = channels // len(parts) + (1 if number < channels % len(parts) else 0)
    for vertex in range(out - 1, 0, -1):
        if vertex not in parts:
            readers = [target for target in range(vertex + 1, out) if matrix[vertex][target]]
            found[vertex] = max(found[target] for target in readers)
    return found


class Cell(torch.nn.Module):
    def __init__(self, matrix, labels, channels_in, channels):
        super().__init__()
        self.matrix = matrix
        size = len(matrix)
        widths = self.widths = channels_of_vertices(matrix, channels_in, channels)
        self.operations, self.projections = torch.nn.ModuleDict(), torch.nn.ModuleDict()
        for vertex in range(1, size - 1):
            width = widths[vertex]
            self.operations[str(vertex)] = {
                "conv1x1-bn-relu": lambda width=width: ConvBNReLU(width, width, 1),
                "conv3x3-bn-relu": lambda width=width: ConvBNReLU(width, width, 3),
                "maxpool3x3": lambda: torch.nn.MaxPool2d(3, stride=1, padding=1),
            }[labels[vertex]]()
        for vertex in range(1, size):
            if matrix[0][vertex]:
                self.projections[str(vertex)] = ConvBNReLU(channels_in, widths[vertex], 1)

    def forward(self, x):
        last = len(self.matrix) - 1
        values = {}
        for vertex in range(1, last):
            inputs = [
                values[source][:, : self.widths[vertex]]
                for source in range(1, vertex)
                if self.matrix[source][vertex]
            ]
            if self.matrix[0][vertex]:
                inputs.append(self.projections[str(vertex)](x))
            values[vertex] = self.operations[str(vertex)](torch.stack(inputs).sum(0))
        outputs = [values[vertex] for vertex in range(1, last) if self.matrix[vertex][last]]
        if not self.matrix[0][last]:
            return torch.cat(outputs, 1)
        projected = self.projections[str(last)](x)
        return torch.cat(outputs, 1) + projected if outputs else projected


class Network(torch.nn.Module):
    """Stem, three stacks of cells with max pools between them, global mean and linear layer."""

    def __init__(self, matrix, labels, channels, cells_per_stage, num_classes):
        super().__init__()
        self.stem = ConvBNReLU(3, channels, 3)
        self.cells_per_stage = cells_per_stage
        self.halve = torch.nn.MaxPool2d(2, stride=2)
        self.cells = torch.nn.ModuleList()
        channels_in = channels
        for stage in range(3):
            for _ in range(cells_per_stage):
                self.cells.append(Cell(matrix, labels, channels_in, channels * 2**stage))
                channels_in = channels * 2**stage
        self.classifier = torch.nn.Linear(channels_in, num_classes)

    def forward(self, x):
        x = self.stem(x)
        for number, cell in enumerate(self.cells):
            if number and number % self.cells_per_stage == 0:
                x = self.halve(x)
            x = cell(x)
        return self.classifier(x.mean((2, 3)))
