from unfinished import *
