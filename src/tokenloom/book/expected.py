"""Values that chapter 5 prints: losses, samples and sample counts (verified with torch 2.13 on the CPU)."""

from __future__ import annotations

GPT_CONFIG_124M = {
    "vocab_size": 50257,
    "context_length": 256,
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
START_CONTEXT = "Every effort moves you"
UNTRAINED_SAMPLE = "Every effort moves you rentingetic wasnم refres RexMeCHicular stren"
TEXT_ENDS = (
    "I HAD always thought Jack Gisburn rather a cheap genius--though a good fellow enough--so it was no  ... "
    "it for me! The Strouds stand alone, and happen once--but there's no exterminating our kind of art.\""
)
UNTRAINED_LOSSES = ("10.98758347829183", "10.98110580444336")

# step, tokens seen, training and validation loss
LOSSES = (
    (0, 512, "9.781 9.933"),
    (5, 3_072, "8.111 8.339"),
    (10, 5_632, "6.661 7.048"),
    (15, 8_192, "5.961 6.616"),
    (20, 10_752, "5.726 6.600"),
    (25, 13_312, "5.201 6.348"),
    (30, 15_872, "4.417 6.278"),
    (35, 18_432, "4.069 6.226"),
    (40, 20_992, "3.732 6.160"),
    (45, 23_552, "2.850 6.179"),
    (50, 26_112, "2.427 6.141"),
    (55, 28_672, "2.104 6.134"),
    (60, 31_232, "1.882 6.233"),
    (65, 33_792, "1.320 6.238"),
    (70, 36_352, "0.985 6.242"),
    (75, 38_912, "0.717 6.293"),
    (80, 41_472, "0.541 6.393"),
    (85, 44_032, "0.391 6.452"),
)

# After each epoch; the model generates the trailing spaces.
SAMPLES = (
    "Every effort moves you,,,,,,,,,,,,.                                     ",
    "Every effort moves you, and, and, and, and, and, and, and, and, and, and, and, and, and, and, and, "
    "and, and, and, and, and, and, and,, and, and,",
    "Every effort moves you, and I had been.                                            ",
    'Every effort moves you know the                          "I he had the donkey and I had the and I '
    "had the donkey and down the room, I had",
    "Every effort moves you know it was not that the picture--I had the fact by the last I had "
    'been--his, and in the            "Oh, and he said, and down the room, and in',
    'Every effort moves you know," was one of the picture. The--I had a little of a little: "Yes, and in '
    "fact, and in the picture was, and I had been at my elbow and as his pictures, and down the room, I "
    "had",
    'Every effort moves you know," was one of the picture for nothing--I told Mrs.  "I was no--as! The '
    "women had been, in the moment--as Jack himself, as once one had been the donkey, and were, and in "
    "his",
    'Every effort moves you know," was one of the axioms he had been the tips of a self-confident '
    "moustache, I felt to see a smile behind his close grayish beard--as if he had the donkey. "
    '"strongest," as his',
    'Every effort moves you?"  "Yes--quite insensible to the irony. She wanted him vindicated--and by '
    'me!"  He laughed again, and threw back the window-curtains, I had the donkey. "There were days when '
    "I",
    'Every effort moves you know," was one of the axioms he laid down across the Sevres and silver of an '
    "exquisitely appointed luncheon-table, when, on a later day, I had again run over from Monte Carlo; "
    "and Mrs. Gis",
)

# Temperature -> how often each word of the toy vocabulary is sampled in 1,000 draws
TOY_COUNTS = {
    1: "73 0 0 582 2 0 0 343 0",
    0.1: "0 0 0 985 0 0 0 15 0",
    5: "165 75 42 239 71 46 32 227 103",
}
