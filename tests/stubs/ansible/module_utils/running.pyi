from running import *
