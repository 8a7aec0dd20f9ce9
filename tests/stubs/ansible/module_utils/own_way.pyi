from own_way import *
