"""The words and things of the demo world, split between base models and evaluation.

The base models are trained on `BASE_VOCAB`; seed pool, instruction data and evaluation use
`EVAL_VOCAB`. The two share every kind, colour and background, but no sign word and no (colour, kind)
combination, so a base model can never have seen the answer to an evaluation question as a whole.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from functools import cache

KINDS = ("ball", "cup", "star", "tree", "hat", "kite", "heart", "house", "boat", "car")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
BACKGROUNDS = ("beach", "forest", "snow", "night", "street", "room")
NUMBERED_KINDS = ("house", "boat", "car")
LETTERS = string.ascii_uppercase
NUMBER_WORDS = ("zero", "one", "two", "three", "four")

# One combination in (3*kind + colour) mod 8 < 3 is kept for evaluation: three colours of every kind.
_EVAL_RESIDUES = 3

_BASE_TEXT = """
ACE ACID ACT ADD AGE AGREE AID AIM AIR ALARM ALBUM ALL ALLEY AMBER ANGEL ANGLE ANT APE APPLE APRON ARCH
AREA ARENA ARM ARROW ART ASH ATLAS ATTIC AUNT AWARD AXE BABY BACK BACON BADGE BAG BAIT BAMBOO BAND BANK
BANNER BARN BASIN BASKET BATH BAY BEACON BEAN BEAR BEAST BED BEE BEEF BEETLE BELL BELT BENCH BERRY BIKE
BIRD BLADE BLOCK BLOOM BOARD BOLT BONE BOOK BOOT BOTTLE BOW BOX BRAIN BRANCH BRASS BREAD BREEZE BRICK
BRIDGE BROOM BRUSH BUBBLE BUCKET BUD BULB BUNNY BUS BUSH BUTTER CABIN CABLE CAKE CAMEL CAMP CANDLE CANDY
CANOE CANYON CAP CARD CARGO CARPET CARROT CAVE CHAIN CHAIR CHALK CHEESE CHERRY CHESS CHURCH CIDER
CINEMA CIRCLE CLAY CLIFF CLOAK CLOUD CLOVER CLUB COACH COAL COAST COBRA COCOA COFFEE COIN COMET COPPER
CORAL CORN COTTON COUCH CRAB CRANE CRATE CRAYON CROWN CUBE CYCLE DAD DAIRY DAISY DANCE DART DAWN DECK
DEER DESERT DESK DICE DIET DINER DIVE DOG DOLL DOME DONKEY DOVE DRAGON DRAWER DREAM DRUM DUCK DUNE
DUST EAGLE EAR EARTH ECHO EDGE EEL EGG ELBOW ELF ENGINE ENJOY EQUAL ERROR EVENT EXPERT EYE FABRIC
FACE FAIR FALCON FAN FARM FEAST FENCE FERN FIELD FIG FILM FINCH FIRE FLAG FLAME FLOUR FLUTE FOAM FOG FOOD
FOOT FORK FOSSIL FOX FRAME FROG FROST FRUIT FUDGE FUR GALAXY GARAGE GARLIC GATE GECKO GEM GHOST GIANT
GIFT GINGER GLASS GLOBE GLOVE GLUE GOAT GRAPE GRAVEL GRILL GROOVE GUITAR GULL GYM HAIL HAMMER HAND
HARBOR HARP HAWK HAY HEDGE HELMET HEN HERB HERO HILL HINGE HIPPO HOBBY HOLLY HONEY HOOD HOOK HOTEL ICE
ICON IDEA INDEX INK INN INSECT IRON ISLAND IVORY IVY JACKET JAGUAR JAM JAR JAZZ JEANS JELLY JET JEWEL JIGSAW
JOKE JUDGE JUICE JUMP JURY KAYAK KENNEL KEY KIND KIOSK KISS KNEE KNIFE KNIGHT KNOB KOALA LABEL LACE
LADDER LAMB LAMP LAND LASER LAVA LAWN LEAF LEDGE LEG LEMUR LENS LETTER LEVEL LIBERTY LID LILY LIME LINEN LION
LIZARD LOAF LOCK LOG LUNCH LYRIC MAGNET MAIL MANGO MAP MAPLE MARBLE MASK MAZE MEADOW MEDAL MELON MENU
METAL MILK MINT MIRROR MIST MOLE MONKEY MOON MOSS MOTH MOTOR MOUSE MUD MUFFIN MUG MUSEUM MUSIC NAIL
NAPKIN NECK NEEDLE NEST NET NICKEL NOISE NOON NORTH NOSE NOVEL NURSE NUT NYLON OAK OASIS OAT OCEAN
OFFICE OIL OLIVE ONION OPERA ORBIT ORCHID ORGAN OTTER OVEN OWL OXYGEN OYSTER PAD PAGE PAINT PALACE
PALM PANDA PAPER PARADE PARK PARROT PASTA PATH PEACH PEAR PEBBLE PEN PENCIL PEPPER PIANO PIE PIG PILLOW PINE PIPE
PIRATE PIZZA PLANET PLATE PLUM POCKET POEM POND PONY POPPY PORT POTATO PUDDLE PUPPY PUZZLE QUAIL
QUARRY QUARTZ QUERY QUEST QUEUE QUIET QUILT QUIZ QUOTE RABBIT RADIO RAFT RAIL RAVEN RELAX RIBBON RICE
RING RIVER ROAD ROBIN ROCK ROD ROOF ROOT ROPE ROSE RUBY RUG RULER SADDLE SAIL SALAD SALT SAND SAUCE SAXON SCARF
SCHOOL SEAL SEED SHARK SHEEP SHELF SHELL SHIP SHIRT SHOE SILK SINK SIX SKI SKULL SKY SLED SNAIL SOAP SOCK
SODA SOFA SOUP SPADE SPICE SPOON SQUARE SQUASH SQUID STAMP STEAM STONE STORM STOVE STREAM STUDIO SUGAR SUIT
SUN SWAN SWEET SWORD SYRUP TABLE TAIL TANGO TAXI TEA TEMPLE TENT TEXT THORN THRONE THUMB TIDE TIE TILE TIMBER
TOAD TOAST TOE TOMATO TOOL TORCH TOWEL TOWER TOY TRAIN TRAY TRUCK TULIP TUNA TUNNEL TURBO TUXEDO UMPIRE UNCLE
UNION UNIT UPSET URBAN URN USER VALLEY VALVE VAN VASE VAULT VEIL VELVET VERB VEST VIDEO VIEW VINE VIOLET
VIRUS VISION VOICE VOTE VOWEL WAFFLE WAGON WALL WALNUT WALRUS WAND WASP WATCH WAVE WAX WEB WEST WHALE WHEAT WHEEL
WIND WINDOW WING WINTER WIRE WIZARD WOLF WOOD WOOL WORLD WORM WRIST XENON XRAY YACHT YAK YAM YARD YARN YEAR YEAST
YETI YOGA YOLK ZEBRA ZEN ZERO ZEST ZINC ZIP ZONE ZOOM
"""

_EVAL_TEXT = """
BAKERY BARGE BLAZE CAFE CASTLE CLINIC DEPOT DOCK EXIT FERRY FIX FLOWER GARDEN GOLD HELLO HUB JOIN JUNGLE KARATE
KITTEN LEMON LIBRA LUCKY MARKET METRO MOVE NOVA OPEN ORANGE PHOTO PIXEL POST PUB QUEEN QUICK RACE RADAR SALE SHOP
SPA STOP TAVERN TICKET TIGER TURN UNIQUE VIP WATER WAY YELL YES ZIGZAG ZOO
"""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What scenes may be made of.

    Attributes:
        name: "base" or "eval".
        words: sign words, 3 to 6 upper-case letters.
        combos: allowed (colour, kind) pairs.
        random_word_share: share of signs (0-1) that show a random letter string in place of a word,
            so that a reader cannot get by with a memorised list.
    """

    name: str
    words: tuple[str, ...]
    combos: tuple[tuple[str, str], ...]
    random_word_share: float = 0.0

    def colours_of(self, kind: str) -> tuple[str, ...]:
        """Colours in which this vocabulary allows `kind`."""
        return tuple(colour for colour, other in self.combos if other == kind)

    def draw_word(self, rng: random.Random) -> str:
        """One sign word; a random letter string (never a word of the evaluation) for some."""
        if rng.random() < self.random_word_share:
            held_out = eval_words()
            while True:
                word = "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 6)))
                if word not in held_out:
                    return word
        return rng.choice(self.words)


def _is_eval_combo(colour: str, kind: str) -> bool:
    return (3 * KINDS.index(kind) + COLOURS.index(colour)) % len(COLOURS) < _EVAL_RESIDUES


@cache
def eval_words() -> frozenset[str]:
    """Sign words that only the evaluation side uses."""
    return frozenset(_EVAL_TEXT.split())


def _words(text: str) -> tuple[str, ...]:
    return tuple(sorted({word for word in text.split() if 3 <= len(word) <= 6}))


_ALL_COMBOS = tuple((colour, kind) for kind in KINDS for colour in COLOURS)
EVAL_VOCAB = Vocabulary("eval", _words(_EVAL_TEXT), tuple(c for c in _ALL_COMBOS if _is_eval_combo(*c)))
BASE_VOCAB = Vocabulary(
    "base",
    tuple(word for word in _words(_BASE_TEXT) if word not in eval_words()),
    tuple(c for c in _ALL_COMBOS if not _is_eval_combo(*c)),
    random_word_share=0.3,
)
