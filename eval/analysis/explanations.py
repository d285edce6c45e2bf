"""What the scores, lines and words of a page mean, for readers who know neither metrics nor statistics.

The name of a score ──longest beginning that is explained──▶ a sentence
"""

METRICS = {
    "amount": "share of answers with the reference's amount of money",
    "glossary-consistency": "share of repeated glossary terms that keep one translation within a document",
    "ipc": "agreement of the first IPC symbol with the reference's; macro F1 weighs each class the same",
    "label-set": "agreement of sets of labels: mean F1 of the sets, and share of equal sets",
    "prison-term-log-distance": "distance of the logarithms of months from the reference's; lower is better",
    "prison-term-missing": "share of answers without a prison term; lower is better",
    "accuracy": (
        "share of questions answered with exactly the right option letters; dashed: expected of guessing"
    ),
    "accuracy-mean-of-subjects": "mean of the accuracies of the subjects, each with the same weight",
    "all-entropy": (
        "how undecided the model is over all tokens, in nats; lower is more decided, not better in itself"
    ),
    "all-loss": "mean negative log-probability of all tokens, in nats; lower is better",
    "all-token-accuracy": "share of all tokens that were the model's likeliest; 1 is best",
    "answer-entropy": (
        "how undecided the model is over the right answer's tokens, in nats; lower is more decided"
    ),
    "answer-loss": "mean negative log-probability of the right answer's tokens, in nats; lower is better",
    "answer-token-accuracy": "share of the right answer's tokens that were the model's likeliest; 1 is best",
    "ranking-exponential": "the same with a gain of 2 to the grade, less 1, for nDCG (Burges et al. 2005)",
    "ranking-map": "mean over questions of the precision at each relevant document that was found; 1 is best",
    "ranking-mrr": "mean of 1 / rank of the first relevant document; 1 is best",
    "ranking-ndcg": "how high the relevant documents stand, weighted by their grades; 1 is best",
    "ranking-recall": "share of the relevant documents that are among the first so many; 1 is best",
    "source-citations-f1": "agreement of the cited sources with those that have the answer: F1, 1 is best",
    "source-citations-false-refusals": (
        "share of questions with an answer in the sources that were refused; lower is better"
    ),
    "source-citations-precision": "share of the citations that name a source that has the answer; 1 is best",
    "source-citations-recall": "share of the sources that have the answer that are cited; 1 is best",
    "source-citations-refusals": (
        "share of questions without an answer in the sources that were refused; 1 is best"
    ),
    "answered": "share of questions whose answer names an option at all",
    "article-f1": "agreement of cited articles with the reference's: F1 of precision and recall, 1 is best",
    "article-word-for-word": "share of answers that contain the whole article word for word",
    "bits-per-byte": (
        "bits that the model needs for a byte of the text; lower is better, and models with different "
        "tokenizers can be compared"
    ),
    "bits-per-byte-by-position": (
        "bits that the model needs for a byte, for each part of the documents by its position in tokens"
    ),
    "bleu": (
        "n-grams of up to four words or characters that prediction and reference share, over all samples; "
        "0 to 100, higher is better; only comparable with the same tokenizer. Of fewer than 30 samples its "
        "interval is somewhat too narrow"
    ),
    "characterized-kept": "share of the source's `characterized in that` that the translation has",
    "chrf": (
        "character n-grams that prediction and reference share, over all samples; 0 to 100, higher is better."
        " Of fewer than 30 samples its interval is somewhat too narrow"
    ),
    "citations-exact": "share of answers that cite exactly the articles of the reference",
    "cited-articles-exist": "share of cited articles that exist in the given laws; the rest is invented",
    "cited-laws-given": "share of citations to a law whose articles were given, so that they can be checked",
    "claim-numbers-kept": "share of the source's claim numbers that the translation has",
    "claim-references-kept": "share of the source's references between claims that the translation has",
    "classification": "agreement of predicted and right classes",
    "comet": (
        "quality of the translations as the COMET model in the name rates it, given source and reference; "
        "higher is better, only comparable with the same model"
    ),
    "entities": (
        "named entities of the right type and text: recall is the share of right ones found, precision the"
        " share of found ones that are right, F1 combines both"
    ),
    "entities-malformed": "share of answers that are not in the form asked for; lower is better",
    "exact-match": "share of answers equal to the reference",
    "extraction": (
        "phrases of key information: recall is the share of right ones found, precision the share of found"
        " ones that are right, F1 combines both"
    ),
    "extraction-malformed": "share of answers that are not in the form asked for; lower is better",
    "extraction-sample-macro-f1": "F1 of each sample's phrases, averaged over samples",
    "glossary-hit-rate": (
        "share of the source's glossary terms with an accepted translation in the prediction"
    ),
    "numbers-kept": "share of the source's numbers with units that the prediction has",
    "numerals-kept": "share of the source's reference numerals that the prediction has",
    "refusal": "share of answers that refuse at their start, found by patterns",
    "rouge": (
        "sequence that prediction and reference share: recall is its share of the reference, precision its"
        " share of the prediction, F1 combines both; 1 is best"
    ),
    "rouge-legacy": (
        "in effect the share of predictions identical to the reference; for comparison with old tables"
    ),
    "sentence-bleu": "BLEU of each sample, averaged; 0 to 1, higher is better",
    "ter": "edits that turn the prediction into the reference, in percent of its words; lower is better",
    "term": "share of repeated glossary terms that keep one translation within a document",
    "token-f1": "words that prediction and reference share, F1 of each sample averaged; 1 is best",
    "token-perplexity": (
        "how many tokens the model hesitates between; lower is better, only comparable with the same "
        "tokenizer"
    ),
    "trl": "as TRL logs it during training: means of batches",
}
"""Beginnings of the names of scores, and what such a score is."""

READING = (
    (
        "Each line is one score. The dot is its value and the bar its 95% interval: where the score of all"
        " possible samples of this kind plausibly lies. Wide bars mean few or very different samples."
    ),
    (
        "Blue is this run, grey its base. The solid upright is zero; a dashed red upright is what guessing"
        " would score. Each line has its own axis, whose ends are written beside it, except where "
        "categories share one."
    ),
    "The score marked primary is the one that comparisons of the task rest on.",
    "A name with | scores what a filter leaves of an answer: one with |title its title, without an opening "
    "phrase or quotation marks. Scores named lenient do not punish an answer for its form alone.",
)
"""The lines of the scores."""

COMPARING = (
    (
        "Each line is this run minus its base, over the samples that both answered; the solid upright is "
        "no difference. The verdict rests on p, not on the bar."
    ),
    (
        "p is the probability of a difference at least this large if both models were equally good. It is "
        "corrected (Holm) for testing several primary scores. Better and worse mean p of at most 0.05; not"
        " shown means that these samples do not decide it, not that the models are equal. Up to five "
        "samples can never decide."
    ),
    "The smallest effect is the difference that such samples would show four times out of five.",
)
"""The lines of the comparison."""

SECONDARY = (
    "These scores were not what the comparison asked: their p, in brackets, is not corrected for their "
    "number, so that some will seem different by chance."
)
PAIRS = "Red parts are only in the left text, green parts only in the right one."


def explain(score: str) -> str:
    """A sentence on the score of this name; empty if there is none."""
    known = [
        name for name in METRICS if score == name or score.startswith((f"{name}-", f"{name}|", f"{name}@"))
    ]
    return METRICS[max(known, key=len)] if known else ""
