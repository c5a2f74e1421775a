"""Makes the tokenizers of this folder and what they answer: answers.json, {file: [{"text", "ids"}, ...]}.

  python3 generate.py GOLDENS

Needs sentencepiece, tokenizers and transformers (made with 0.2.3, 0.23.3 and 5.23). GOLDENS is the folder with clip_bpe.vocab.json and
clip_bpe.merges.txt of the reference cases.
"""
import json
import pathlib
import random
import re
import sys
import tempfile

import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = pathlib.Path(__file__).parent
WORDS = "the cat sat on a mat while two dogs were singing caf\u00e9 songs in old cities".split()
# Replacements, as NFKC has them: the full trie would be 240 KB.
RULES = {"\uff36": "V", "\u00bd": "1\u20442", "\u3000": " ", "\u00a0": " ", "\t": " ", "e\u0301": "\u00e9", "\ufb01": "fi",
         "\u2460": "1", "\u200b": "", "\u33d2": "log", "\u0132": "IJ"}
TEXTS = ["", " ", "the cat", "  the  cat ", "The CAT's  singing\n on the mat", "caf\u00e9 cafe\u0301", "\uff36\u00bd\u3000\u00a0dogs",
         "\u2460\u0301x \u00bd\u0301", "\u732b \U0001F600\U0001F600 x", "a</s>b", "</s> <pad>  cat <unk>   old", "<extra_id_0>cat", "cat sat",
         "xyzzy", "in\u200bold", "\u2581the\u2581\u2581cat", "12 cats 123", "don't we'll", "<|endoftext|> cat", "<|ENDOFTEXT|>",
         "\u0130STANBUL \u03a3\u03a3", "one_two-three!!", "x  y\tz\x0bw\u2028v", "e\u0301\u0327\u0323 \ud55c\uad6d", "a\x00b", "\ufb01sh \u33d2 \u0132",
         "\U0001f468\u200d\U0001f469\u200d\U0001f467 family", "'s''t \u2019s", "\u0e01\u0e33 \u0924\u093f", " ".join(WORDS * 3)]


def train(path, **more):
    rnd = random.Random(1)
    lines = [" ".join(rnd.choice(WORDS) for _ in range(8)) for _ in range(800)]
    with tempfile.TemporaryDirectory() as d:
        rules = pathlib.Path(d, "rules.tsv")
        rules.write_text("".join(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n"
                                 for a, b in sorted(RULES.items())))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_prefix=d + "/m", model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
            normalization_rule_tsv=str(rules), hard_vocab_limit=False, minloglevel=2, character_coverage=1.0, **more)
        path.write_bytes(pathlib.Path(d, "m.model").read_bytes())
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(path.read_bytes())
    return proto


def with_sentencepiece(path):
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))

    def encode(text):  # control symbols stand for themselves, as in transformers' T5Tokenizer 4.x
        ids = []
        for part in re.split("(</s>|<pad>|<unk>)", text):
            ids += [model.piece_to_id(part)] if part in ("</s>", "<pad>", "<unk>") else model.encode(part) if part else []
        return ids + [1]
    return encode


def unigram(proto, steps, cut, byte_fallback=False):
    t = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], unk_id=2, byte_fallback=byte_fallback))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap), *steps])
    t.pre_tokenizer = cut
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    t.add_special_tokens([AddedToken("<pad>", normalized=False, lstrip=True), AddedToken("</s>", normalized=False),
                          AddedToken("<unk>", normalized=True, rstrip=True)])
    t.add_tokens([AddedToken("<extra_id_0>", normalized=True), "cat sat"])
    return t


def main():
    goldens = pathlib.Path(sys.argv[1])
    proto = train(HERE / "spiece.model", vocab_size=110)
    answers = {"spiece.model": with_sentencepiece(HERE / "spiece.model")}
    metaspace = pre_tokenizers.Metaspace
    made = {
        "t5.json": unigram(proto, [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "\u2581")], metaspace()),
        "t5_words.json": unigram(proto, [], pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace()])),
        "t5_first.json": unigram(proto, [normalizers.Replace("cat", "dog"), normalizers.NFKD()], metaspace(prepend_scheme="first")),
    }
    with tempfile.TemporaryDirectory() as d:
        path = pathlib.Path(d, "bytes.model")
        made["t5_bytes.json"] = unigram(train(path, vocab_size=360, byte_fallback=True), [], metaspace(), True)
    clip = transformers.CLIPTokenizer(vocab=str(goldens / "clip_bpe.vocab.json"), merges=str(goldens / "clip_bpe.merges.txt"), pad_token="!")
    made["clip.json"] = clip.backend_tokenizer
    for name, tokenizer in made.items():
        (HERE / name).write_text(tokenizer.to_str())
        answers[name] = lambda text, t=tokenizer: t.encode(text).ids
    table = {name: [{"text": text, "ids": encode(text)} for text in TEXTS] for name, encode in answers.items()}
    (HERE / "answers.json").write_text(json.dumps(table, indent=None, separators=(",", ":")).replace("},{", "},\n{") + "\n")


if __name__ == "__main__":
    main()
