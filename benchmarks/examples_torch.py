"""The examples' networks in PyTorch, for comparison: the same sizes, dropout included."""
from __future__ import annotations


def digits(torch, dropout=(0.25, 0.4)):
    nn = torch.nn

    def block(inside: int, outside: int):
        return nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()
    return nn.Sequential(*block(1, 32), *block(32, 64), nn.MaxPool2d(2), nn.Dropout(dropout[0]), *block(64, 64),
                         nn.MaxPool2d(2),
                         nn.Dropout(dropout[1]), nn.Flatten(), nn.Linear(256, 10))


def lstm(torch, letters: int, settings, embedding: int = 64):
    nn = torch.nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(letters, embedding)
            self.lstm = nn.LSTM(embedding, settings.hidden, batch_first=True)
            self.drop, self.out = nn.Dropout(settings.dropout), nn.Linear(settings.hidden, letters)

        def forward(self, ids):
            return self.out(self.drop(self.lstm(self.embed(ids))[0]))
    return Network()


def transformer(torch, letters: int, settings, layers: int, heads: int):
    """The fast path of PyTorch 2: fused causal attention, one product for q, k and v."""
    nn, functional, width = torch.nn, torch.nn.functional, settings.hidden

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down, self.drop = nn.Linear(width,
                                                      4 * width), nn.Linear(4 * width,
                                                                            width), nn.Dropout(settings.dropout)

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=0.0)
            x = x + self.drop(self.proj(y.transpose(1, 2).reshape(b, t, width)))
            return x + self.drop(self.down(self.drop(functional.gelu(self.up(self.norm2(x))))))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.place = nn.Embedding(letters, width), nn.Parameter(torch.zeros(settings.length, width))
            self.blocks = nn.Sequential(*[Block() for _ in range(layers)])
            self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, letters)

        def forward(self, ids):
            return self.out(self.norm(self.blocks(self.embed(ids) + self.place)))
    return Network()
