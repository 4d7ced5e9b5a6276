"""What the small world knows about words: nouns with their plural, French and kind; opposites; verbs; facts.

The tables are text, one entry a phrase, so that they can be read and corrected by anybody who knows the languages.
Nouns are written `english (irregular plural) = french gender`; `~` marks what is not counted (bread, milk).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

from chatsmith.text.world.phrasing import article, regular_plural, split

NOUN_TABLE = {
    "animal": """
        dog = chien m; cat = chat m; cow = vache f; horse = cheval m; pig = cochon m; sheep (sheep) = mouton m;
        goat = chèvre f; hen = poule f; duck = canard m; goose (geese) = oie f; bird = oiseau m; owl = hibou m;
        mouse (mice) = souris f; rabbit = lapin m; fox = renard m; bear = ours m; wolf (wolves) = loup m;
        lion = lion m; tiger = tigre m; elephant = éléphant m; monkey = singe m; frog = grenouille f;
        fish (fish) = poisson m; bee = abeille f; ant = fourmi f; spider = araignée f; snake = serpent m;
        turtle = tortue f; deer (deer) = cerf m; hedgehog = hérisson m; squirrel = écureuil m; whale = baleine f;
        sea otter = loutre de mer f; butterfly = papillon m; donkey = âne m; camel = chameau m; snail = escargot m;
        giraffe = girafe f""",
    "food": """
        apple = pomme f; pear = poire f; cherry = cerise f; strawberry = fraise f; lemon = citron m;
        orange = orange f; banana = banane f; peach = pêche f; plum = prune f; ~bread = pain m; ~cheese = fromage m;
        ~butter = beurre m; ~milk = lait m; ~water = eau f; egg = œuf m; ~soup = soupe f; cake = gâteau m;
        cookie = biscuit m; ~honey = miel m; ~jam = confiture f; ~sugar = sucre m; ~salt = sel m; ~pepper = poivre m;
        ~rice = riz m; ~meat = viande f; carrot = carotte f; potato (potatoes) = pomme de terre f;
        tomato (tomatoes) = tomate f; onion = oignon m; mushroom = champignon m; bean = haricot m; cabbage = chou m;
        ~chocolate = chocolat m; ~tea = thé m; ~coffee = café m; ~juice = jus m; ~peppermint = menthe poivrée f;
        nut = noix f; pie = tarte f; pancake = crêpe f; sandwich = sandwich m; ~corn = maïs m; ~garlic = ail m;
        ~salad = salade f; ~oil = huile f; ~flour = farine f; pumpkin = citrouille f; melon = melon m""",
    "thing": """
        ball = balle f; book = livre m; pencil = crayon m; pen = stylo m; ~paper = papier m; bag = sac m;
        box = boîte f; table = table f; chair = chaise f; bed = lit m; lamp = lampe f; cup = tasse f;
        glass = verre m; plate = assiette f; spoon = cuillère f; fork = fourchette f; knife (knives) = couteau m;
        bottle = bouteille f; basket = panier m; rope = corde f; ladder = échelle f; kite = cerf-volant m;
        doll = poupée f; drum = tambour m; flute = flûte f; bell = cloche f; clock = horloge f; watch = montre f;
        umbrella = parapluie m; ring = bague f; coin = pièce f; letter = lettre f; map = carte f; gift = cadeau m;
        candle = bougie f; mirror = miroir m; brush = brosse f; ~soap = savon m; bucket = seau m; shovel = pelle f;
        hammer = marteau m; nail = clou m; blanket = couverture f; pillow = oreiller m; toy = jouet m;
        robot = robot m; flag = drapeau m; wheel = roue f; key = clé f; door = porte f; window = fenêtre f;
        picture = image f; game = jeu m; song = chanson f; stick = bâton m; button = bouton m; needle = aiguille f;
        broom = balai m; wall = mur m; roof = toit m; word = mot m""",
    "clothes": """
        hat = chapeau m; coat = manteau m; shoe = chaussure f; boot = botte f; sock = chaussette f;
        shirt = chemise f; dress = robe f; skirt = jupe f; glove = gant m; scarf (scarves) = écharpe f;
        belt = ceinture f""",
    "vehicle": """
        boat = bateau m; car = voiture f; train = train m; bike = vélo m; bus = bus m; plane = avion m;
        truck = camion m""",
    "place": """
        park = parc m; forest = forêt f; river = rivière f; beach = plage f; farm = ferme f; market = marché m;
        school = école f; lake = lac m; hill = colline f; library = bibliothèque f; castle = château m;
        bridge = pont m; village = village m; field = champ m; barn = grange f; mill = moulin m; harbour = port m;
        meadow = pré m; cave = grotte f; orchard = verger m; pond = étang m; shop = magasin m; station = gare f;
        town = ville f; street = rue f; church = église f; island = île f; mountain = montagne f; sea = mer f;
        desert = désert m; bakery = boulangerie f; museum = musée m; hospital = hôpital m; road = route f;
        kitchen = cuisine f; garden = jardin m; house = maison f""",
    "nature": """
        sun = soleil m; moon = lune f; star = étoile f; sky = ciel m; cloud = nuage m; ~rain = pluie f;
        ~snow = neige f; wind = vent m; storm = tempête f; ~thunder = tonnerre m; fire = feu m; tree = arbre m;
        flower = fleur f; leaf (leaves) = feuille f; ~grass = herbe f; rose = rose f; seed = graine f;
        ~sand = sable m; stone = pierre f; ~wood = bois m; light = lumière f""",
    "time": """
        night = nuit f; day = jour m; morning = matin m; evening = soir m; week = semaine f; month = mois m;
        year = an m; hour = heure f; spring = printemps m; summer = été m; autumn = automne m; winter = hiver m""",
    "person": """
        mother = mère f; father = père m; brother = frère m; sister = sœur f; son = fils m; boy = garçon m;
        girl = fille f; man (men) = homme m; woman (women) = femme f; child (children) = enfant m; baby = bébé m;
        friend = ami m; king = roi m; queen = reine f; prince = prince m; princess = princesse f; doctor = médecin m;
        baker = boulanger m; farmer = fermier m; grandmother = grand-mère f; grandfather = grand-père m;
        uncle = oncle m; aunt = tante f; cousin = cousin m; name = nom m""",
    "body": """
        head = tête f; hand = main f; foot (feet) = pied m; eye = œil m; ear = oreille f; nose = nez m;
        mouth = bouche f; arm = bras m; leg = jambe f; heart = cœur m; tooth (teeth) = dent f; finger = doigt m;
        back = dos m; knee = genou m; face = visage m""",
}

# english = french masculine / feminine
ADJECTIVE_TABLE = """
    big = grand/grande; small = petit/petite; red = rouge/rouge; blue = bleu/bleue; green = vert/verte;
    yellow = jaune/jaune; black = noir/noire; white = blanc/blanche; brown = marron/marron; grey = gris/grise;
    pink = rose/rose; purple = violet/violette; hot = chaud/chaude; cold = froid/froide; new = nouveau/nouvelle;
    old = vieux/vieille; young = jeune/jeune; good = bon/bonne; bad = mauvais/mauvaise; happy = heureux/heureuse;
    sad = triste/triste; beautiful = beau/belle; fast = rapide/rapide; slow = lent/lente; strong = fort/forte;
    weak = faible/faible; long = long/longue; short = court/courte; clean = propre/propre; dirty = sale/sale;
    rich = riche/riche; poor = pauvre/pauvre; easy = facile/facile; difficult = difficile/difficile;
    heavy = lourd/lourde; light = léger/légère; full = plein/pleine; empty = vide/vide; dry = sec/sèche;
    wet = mouillé/mouillée; open = ouvert/ouverte; closed = fermé/fermée; soft = doux/douce;
    tired = fatigué/fatiguée; sick = malade/malade; alone = seul/seule; kind = gentil/gentille; funny = drôle/drôle;
    quiet = calme/calme; loud = bruyant/bruyante; thin = mince/mince; deep = profond/profonde; high = haut/haute;
    low = bas/basse; brave = courageux/courageuse; round = rond/ronde; sweet = sucré/sucrée; proud = fier/fière
"""

VERB_TABLE = """
    eat ate = manger; drink drank = boire; sleep slept = dormir; run ran = courir; walk walked = marcher;
    sing sang = chanter; dance danced = danser; play played = jouer; read read = lire; write wrote = écrire;
    see saw = voir; hear heard = entendre; speak spoke = parler; give gave = donner; take took = prendre;
    go went = aller; come came = venir; love loved = aimer; want wanted = vouloir; know knew = savoir;
    make made = faire; find found = trouver; look looked = regarder; swim swam = nager; fly flew = voler;
    open opened = ouvrir; close closed = fermer; buy bought = acheter; sell sold = vendre; wash washed = laver;
    cook cooked = cuisiner; laugh laughed = rire; cry cried = pleurer; wait waited = attendre; help helped = aider;
    begin began = commencer; finish finished = finir; jump jumped = sauter; fall fell = tomber;
    learn learned = apprendre; think thought = penser; work worked = travailler; live lived = vivre;
    draw drew = dessiner; lose lost = perdre; hide hid = cacher; throw threw = lancer; climb climbed = grimper;
    build built = -; bring brought = apporter; catch caught = attraper; hold held = tenir; keep kept = garder;
    leave left = partir; say said = dire; sit sat = -; stand stood = -; tell told = raconter; win won = gagner;
    break broke = casser; grow grew = -; ride rode = -; smile smiled = sourire; ask asked = demander;
    answer answered = répondre; carry carried = porter; paint painted = peindre; plant planted = planter;
    push pushed = pousser; pull pulled = tirer; stop stopped = -; try tried = essayer; forget forgot = oublier;
    choose chose = choisir; count counted = compter; share shared = partager; show showed = montrer
"""

PHRASE_TABLE = """
    hello = bonjour; goodbye = au revoir; thank you = merci; please = s'il vous plaît; yes = oui; no = non;
    good night = bonne nuit; good evening = bonsoir; see you soon = à bientôt; see you tomorrow = à demain;
    excuse me = excusez-moi; I am sorry = je suis désolé; how are you? = comment allez-vous ?;
    what is your name? = comment t'appelles-tu ?; my name is Anna = je m'appelle Anna; I am hungry = j'ai faim;
    I am thirsty = j'ai soif; I am cold = j'ai froid; I love you = je t'aime; I don't know = je ne sais pas;
    I understand = je comprends; where is the station? = où est la gare ?; how much is it? = c'est combien ?;
    it is cold = il fait froid; it is hot = il fait chaud; it is raining = il pleut; it is snowing = il neige;
    welcome = bienvenue; happy birthday = joyeux anniversaire; enjoy your meal = bon appétit;
    good luck = bonne chance; of course = bien sûr; today = aujourd'hui; tomorrow = demain; yesterday = hier;
    always = toujours; never = jamais; here = ici; there = là; with = avec; without = sans; and = et; or = ou;
    but = mais; very = très; also = aussi; why = pourquoi; when = quand; who = qui; where = où; how = comment;
    now = maintenant; often = souvent; Monday = lundi; Tuesday = mardi; Wednesday = mercredi; Thursday = jeudi;
    Friday = vendredi; Saturday = samedi; Sunday = dimanche; January = janvier; February = février; March = mars;
    April = avril; May = mai; June = juin; July = juillet; August = août; September = septembre; October = octobre;
    November = novembre; December = décembre; zero = zéro; one = un; two = deux; three = trois; four = quatre;
    five = cinq; six = six; seven = sept; eight = huit; nine = neuf; ten = dix; eleven = onze; twelve = douze;
    thirteen = treize; fourteen = quatorze; fifteen = quinze; sixteen = seize; seventeen = dix-sept;
    eighteen = dix-huit; nineteen = dix-neuf; twenty = vingt
"""

OPPOSITE_TABLE = """
    big small; hot cold; tall short; fast slow; happy sad; good bad; old young; new used; clean dirty; rich poor;
    easy difficult; heavy light; full empty; wet dry; open closed; soft hard; strong weak; loud quiet; thick thin;
    deep shallow; high low; brave afraid; kind mean; early late; near far; left right; up down; in out; on off;
    day night; black white; bright dark; begin finish; push pull; buy sell; give take; come go; laugh cry; win lose;
    love hate; sit stand; remember forget; always never; yes no; hello goodbye; first last; top bottom; front back;
    inside outside; above below; before after; wide narrow; smooth rough; safe dangerous; true false; alive dead;
    awake asleep; more less; many few; same different; north south; east west; summer winter; morning evening;
    sweet sour; sharp blunt; sick healthy; proud ashamed; friend enemy; question answer
"""

# word: baby, sound, home, size from 1 (ant) to 10 (whale); "-" where there is nothing to say
ANIMAL_TABLE = """
    dog puppy woof kennel 5; cat kitten meow - 4; cow calf moo barn 8; horse foal neigh stable 8;
    pig piglet oink pen 6; sheep lamb baa field 6; goat kid - - 6; hen chick cluck coop 4;
    duck duckling quack pond 4; goose gosling honk - 4; bird chick tweet nest 3; owl owlet hoot tree 3;
    mouse - squeak hole 2; rabbit bunny - burrow 4; fox cub - den 5; bear cub growl cave 8; wolf pup howl forest 6;
    lion cub roar - 7; tiger cub - - 7; elephant calf - - 9; monkey - - jungle 5; frog tadpole croak pond 2;
    fish - - water 3; bee - buzz hive 1; ant - - anthill 1; spider - - web 1; snake - hiss - 4; turtle - - - 4;
    deer fawn - forest 7; hedgehog - - - 3; squirrel - - tree 3; whale calf - sea 10; sea otter pup - sea 5;
    butterfly caterpillar - - 1; donkey foal - stable 7; camel calf - desert 8; snail - - shell 1; giraffe calf - - 9
"""

SIZE_TABLE = """
    coin 1; button 1; ring 1; seed 1; nail 1; key 1; nut 1; cherry 1; egg 2; spoon 2; cup 2; pencil 2; apple 2;
    lemon 2; ball 3; book 3; shoe 3; hat 3; plate 3; drum 4; basket 4; pumpkin 4; pillow 4; chair 5; umbrella 4;
    ladder 6; table 6; bed 6; bike 6; door 6; car 7; boat 7; truck 8; bus 8; tree 8; house 9; train 9; castle 9;
    church 9; hill 10; mountain 10; island 10
"""

COLOUR_TABLE = """
    grass green; sky blue; snow white; sun yellow; banana yellow; lemon yellow; tomato red; strawberry red;
    cherry red; carrot orange; pumpkin orange; milk white; chocolate brown; night black; elephant grey; mouse grey;
    pig pink; frog green; leaf green; cloud white; bear brown; salt white; sugar white; plum purple; sea blue;
    rose red; coffee brown; cabbage green; wood brown; stone grey; flour white; rice white; butter yellow;
    cheese yellow; bee yellow; fox orange; corn yellow; blood red; coal black; peach pink
"""

COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey", "pink", "purple", "orange")
NONSENSE = split(
    "zup mip dax wug blick fep tover lum gazz nib pock ruzz tiv yab kesh drin vock sarn joll quib hule orp teb"
)
"""Made-up words: labels whose meaning can only be read off the examples at hand."""

_ASPIRATED = frozenset({"hibou", "hérisson", "haricot"})
_FRENCH_VOWELS = frozenset("aeiouéèêàâîôûœh")


@dataclass(frozen=True)
class Noun:
    """A thing, animal, person, place or stretch of time."""

    word: str
    plural: str
    french: str
    feminine: bool
    kind: str
    counted: bool = True

    @cached_property
    def a(self) -> str:
        """With its indefinite article: 'an apple', 'some bread'."""
        return f"{article(self.word)} {self.word}" if self.counted else f"some {self.word}"

    @cached_property
    def the(self) -> str:
        return f"the {self.word}"

    @cached_property
    def french_the(self) -> str:
        """'le chien', 'la vache', 'l'oie'."""
        if self.french[0] in _FRENCH_VOWELS and self.french not in _ASPIRATED:
            return f"l'{self.french}"
        return ("la " if self.feminine else "le ") + self.french

    @cached_property
    def french_a(self) -> str:
        """'un chien', 'une vache'; 'du pain', 'de la soupe', 'de l'eau' for what is not counted."""
        if self.counted:
            return ("une " if self.feminine else "un ") + self.french
        the = self.french_the
        return "du " + self.french if the.startswith("le ") else "de " + the

    def __str__(self) -> str:
        return self.word


@dataclass(frozen=True)
class Adjective:
    """A quality, with both French genders."""

    word: str
    masculine: str
    feminine: str

    def french(self, feminine: bool) -> str:
        return self.feminine if feminine else self.masculine


@dataclass(frozen=True)
class Verb:
    """An action: its plain form, its past, and the French infinitive ('' where the table has none)."""

    word: str
    past: str
    french: str


@dataclass(frozen=True)
class Animal:
    """What is known about an animal besides its name; '' where there is nothing to know."""

    noun: Noun
    baby: str
    sound: str
    home: str
    size: int


@dataclass(frozen=True)
class Lexicon:
    """Every word list of the small world, ready for use."""

    nouns: tuple[Noun, ...]
    adjectives: tuple[Adjective, ...]
    verbs: tuple[Verb, ...]
    phrases: tuple[tuple[str, str], ...]
    opposites: tuple[tuple[str, str], ...]
    animals: tuple[Animal, ...]
    sizes: tuple[tuple[str, int], ...]
    colours: tuple[tuple[str, str], ...]

    @cached_property
    def by_word(self) -> dict[str, Noun]:
        return {noun.word: noun for noun in self.nouns}

    def of_kind(self, *kinds: str) -> tuple[Noun, ...]:
        """The nouns of these kinds: 'animal', 'food', 'thing', 'clothes', 'vehicle', 'place', 'nature' …"""
        return tuple(noun for noun in self.nouns if noun.kind in kinds)

    @cached_property
    def french(self) -> dict[str, str]:
        """English to French for every word and phrase (adjectives in the masculine, verbs in the infinitive).

        A word with two meanings keeps the one that comes first: 'orange' the fruit, 'light' the noun.
        """
        pairs: dict[str, str] = {}
        for noun in self.nouns:
            pairs.setdefault(noun.word, noun.french)
        for adjective in self.adjectives:
            pairs.setdefault(adjective.word, adjective.masculine)
        for verb in self.verbs:
            if verb.french:
                pairs.setdefault(f"to {verb.word}", verb.french)
        for english, french in self.phrases:
            pairs.setdefault(english, french)
        return pairs


def _entries(table: str) -> list[str]:
    return [" ".join(entry.split()) for entry in table.split(";") if entry.strip()]


def _noun(entry: str, kind: str) -> Noun:
    match = re.fullmatch(r"(~?)([\w -]+?)(?: \((\w+)\))? = (.+) ([mf])", entry)
    if match is None:
        raise ValueError(f"not a noun: {entry!r}")
    mass, word, plural, french, gender = match.groups()
    return Noun(word, plural or regular_plural(word), french, gender == "f", kind, counted=not mass)


def _blank(cell: str) -> str:
    return "" if cell == "-" else cell


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """The words of the small world."""
    nouns = tuple(_noun(entry, kind) for kind, table in NOUN_TABLE.items() for entry in _entries(table))
    by_word = {noun.word: noun for noun in nouns}
    adjectives = []
    for entry in _entries(ADJECTIVE_TABLE):
        word, forms = entry.split(" = ")
        adjectives.append(Adjective(word, *forms.split("/")))
    verbs = []
    for entry in _entries(VERB_TABLE):
        forms, french = entry.split(" = ")
        word, past = forms.split()
        verbs.append(Verb(word, past, _blank(french)))
    animals = []
    for entry in _entries(ANIMAL_TABLE):
        word, baby, sound, home, size = entry.rsplit(" ", 4)
        animals.append(Animal(by_word[word], _blank(baby), _blank(sound), _blank(home), int(size)))
    return Lexicon(
        nouns=nouns,
        adjectives=tuple(adjectives),
        verbs=tuple(verbs),
        phrases=tuple((one, other) for one, other in (entry.split(" = ") for entry in _entries(PHRASE_TABLE))),
        opposites=tuple((one, other) for one, other in (entry.split() for entry in _entries(OPPOSITE_TABLE))),
        animals=tuple(animals),
        sizes=tuple((word, int(size)) for word, size in (entry.split() for entry in _entries(SIZE_TABLE))),
        colours=tuple((word, colour) for word, colour in (entry.split() for entry in _entries(COLOUR_TABLE))),
    )


__all__ = ["COLOURS", "NONSENSE", "Adjective", "Animal", "Lexicon", "Noun", "Verb", "lexicon"]
