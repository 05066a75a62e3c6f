"""Word-level edits of a sentence that keep its meaning or contradict it.

SNLI's hypotheses are short and worded freely. These edits give the LM long outputs that stay close to the
premise, which is what the paraphrase and "change one or two elements" instructions ask for.
"""

import random
import re

_KEEP = """
man=guy,person,gentleman|woman=lady,person|boy=kid,child|girl=kid,child|men=guys,people|women=ladies,people
boys=kids,children|girls=kids,children|child=kid|children=kids|kids=children|kid=child|dog=animal,pup
dogs=animals|person=individual|guy=man|lady=woman|street=road|road=street|sidewalk=pavement
bike=bicycle|bicycle=bike|picture=photo|couch=sofa|large=big|big=large|small=little|little=small|near=close to
beside=next to|shirt=top|jacket=coat|talking=chatting,speaking|ocean=sea
car=vehicle|truck=vehicle|guitar=musical instrument|several=some,a few|two=a couple of,a pair of
walking=strolling|running=jogging|eating=having|sitting=seated|crowd=large group|crowded=busy
looking at=watching|watching=looking at|food=a meal|photograph=photo|forest=woods|toddler=small child
baby=infant|infant=baby|young=youthful|elderly=old|older=old|female=woman|male=man|couple=pair|ball=toy
field=meadow|hill=slope|shop=store|store=shop|next to=beside|in front of=before|a group of=several,some
beach=seashore|swimming=bathing|jumping=leaping|jumps=leaps|smiling=grinning|holding=carrying|holds=carries
performing=putting on a show|many=lots of|cooking=preparing food|throwing=tossing|throws=tosses|began=started
only=just|also=as well|located=situated|first=initial|won=gained|made=created|built=constructed
"""
_BREAK = """
man,woman,boy,girl|men,women,boys,girls|dog,cat,horse,cow|dogs,cats,horses|red,blue,green,yellow,black,white
one,two,three,four,five,six|sitting,standing,running,sleeping,walking,lying down|sits,stands,runs,sleeps,walks
street,beach,forest,kitchen,park,field,gym,library|outside,inside|outdoors,indoors|young,old,elderly
large,small|big,tiny|snow,sand,grass,mud,water|guitar,piano,violin,trumpet|soccer,basketball,tennis,chess,baseball
night,day|car,boat,bus,train,plane|smiling,crying,frowning|eating,cooking,throwing away|happy,sad,angry
playing,fighting,sleeping,reading|plays,watches,sells|jumping,sleeping,falling,crawling|jumps,sleeps,crawls
up,down|over,under|on,under|with,without|hat,helmet,wig|shirt,coat,dress,suit|bike,horse,skateboard,scooter
riding,pushing,washing,selling|rides,pushes,sells|holding,dropping,breaking|holds,drops|walks,sleeps,drives
swimming,cycling,driving,skiing|water,wine,milk|winter,summer|day,night|morning,evening|left,right|front,back
before,after|first,last|more,less|many,few|most,least|high,low|north,south|east,west|increase,decrease
increased,decreased|began,ended|born,killed|won,lost|early,late|new,old|long,short|always,never|all,none of
male,female|son,daughter|father,mother|king,queen|he,she|his,her|included,excluded|with,without|open,closed
talking,singing,sleeping|looking at,ignoring|watching,ignoring|alone,in a large crowd|boys,girls|city,desert
crowd,single person|child,adult,old man|children,adults,old men|people,dogs,cats|person,dog,horse|baby,old man
asleep,awake|building,mountain,river|table,bed,floor|house,castle,tent|rock,tree,roof|ball,book,knife|wall,lake
"""
_ASPECT = """
sitting:sits|standing:stands|walking:walks|running:runs|playing:plays|riding:rides|jumping:jumps|wearing:wears
holding:holds|talking:talks|performing:performs|eating:eats|smiling:smiles
climbing:climbs|dancing:dances|swimming:swims|watching:watches|posing:poses|singing:sings|reading:reads
"""
_DROP = re.compile(
    r"(?<= )(?:very|young|old|older|elderly|large|big|small|little|blond|blonde|bald|red|blue|green|yellow"
    r"|black|white|brown|orange|pink|purple|gray|grey|dark|bright|colorful|beautiful|tall|busy|crowded|many|dirty|wooden"
    r"|also|various|different) (?=[a-z])"
)
_CLAUSE = re.compile(
    r",? (?:wearing|dressed in|with|near|next to|in front of|while|during|behind|beside|at|in the background)"
    r" [a-z' -]+(?=[.,]|$)"
)
_WORD = re.compile(r"[A-Za-z]+")


def _keep_table() -> dict[str, list[str]]:
    entries = (entry.split("=") for entry in re.split(r"[|\n]", _KEEP.strip()))
    return {word: others.split(",") for word, others in entries}


def _break_table() -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for group in re.split(r"[|\n]", _BREAK.strip()):
        words = group.split(",")
        for word in words:
            table.setdefault(word, []).extend(other for other in words if other != word)
    return table


KEEP, BREAK = _keep_table(), _break_table()
"""Words, each with the words that may replace it: the meaning is kept, or contradicted."""
ASPECT = dict(entry.split(":") for entry in re.split(r"[|\n]", _ASPECT.strip()))
"""Present participles, each with the third person singular."""
_PLURAL = {ing: third[:-2] if third.endswith("ches") else third[:-1] for ing, third in ASPECT.items()}


def paraphrase(sentence: str, rng: random.Random) -> str | None:
    """Return the sentence in other words; None if no edit fits."""
    text = _change_aspect(sentence, rng)
    text = _swap(text, KEEP, rng, limit=3)
    text = _drop_some(text, rng)
    return text if text != sentence else None


def shorten(sentence: str, rng: random.Random) -> str | None:
    """Return the sentence without some adjectives or a clause.

    None if nothing can be left out, or fewer than three words would remain.
    """
    text = _DROP.sub("", sentence)
    clauses = list(_CLAUSE.finditer(text))
    if clauses and len(text.split()) > 7:
        clause = clauses[-1]
        text = text[: clause.start()] + text[clause.end() :]
    if rng.random() < 0.5:
        text = _swap(_change_aspect(text, rng), KEEP, rng, limit=1)
    return text if text != sentence and len(text.split()) >= 3 else None


def contradict(sentence: str, rng: random.Random) -> str | None:
    """Return the sentence with one or two words exchanged for others that exclude them, or a negation.

    None if neither fits.
    """
    text = _swap(sentence, BREAK, rng, limit=2)
    if text == sentence:
        text = re.sub(r" (is|are|was|were|can|will|has|have|had) ", r" \1 not ", sentence, count=1)
    return text if text != sentence else None


def scramble(sentence: str, rng: random.Random) -> str:
    """Drop some words and move others a little, for the side task of putting a sentence in order."""
    words = [word for word in sentence.split() if rng.random() > 0.15]
    order = sorted(range(len(words)), key=lambda place: place + rng.random() * 2.5)
    return " ".join(words[place] for place in order) or sentence


def _swap(sentence: str, table: dict[str, list[str]], rng: random.Random, limit: int) -> str:
    """Replace the first `limit` words that the table has.

    The places are not drawn at random: a greedy decoder never edits a place that is edited one time in three.
    """
    places = [match for match in _WORD.finditer(sentence) if match[0].lower() in table]
    chosen = places[:limit][::-1]
    for match in chosen:
        others = table[match[0].lower()]
        other = others[0] if rng.random() < 0.6 else rng.choice(others)
        other = other.capitalize() if match[0][0].isupper() else other
        sentence = sentence[: match.start()] + other + sentence[match.end() :]
    return re.sub(r"\b([Aa]) (?=(?:individual|infant|old|angry|elderly|animal|adult)\b)", r"\1n ", sentence)


def _change_aspect(sentence: str, rng: random.Random) -> str:
    """Change "is sitting" to "sits", "are sitting" to "sit", or "sits" to "is sitting".

    One sentence in five stays unchanged.
    """
    if rng.random() < 0.2:
        return sentence
    for ing, third in ASPECT.items():
        for old, new in ((f" is {ing} ", f" {third} "), (f" are {ing} ", f" {_PLURAL[ing]} ")):
            if old in sentence:
                return sentence.replace(old, new, 1)
        if f" {third} " in sentence:
            return sentence.replace(f" {third} ", f" is {ing} ", 1)
    return sentence


def _drop_some(sentence: str, rng: random.Random) -> str:
    return _DROP.sub(lambda match: "" if rng.random() < 0.2 else match[0], sentence)
