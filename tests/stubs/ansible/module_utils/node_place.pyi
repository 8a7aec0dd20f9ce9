from node_place import *
