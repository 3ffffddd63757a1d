# The nodes of this site. Another count makes or removes exactly the last ones.
pools = {
  control = { classes = ["control"], count = 1 }
  worker  = { classes = ["worker"], count = 1 }
}
