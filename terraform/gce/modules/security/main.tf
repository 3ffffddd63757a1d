# A network tag a node class, and one that every node has. What comes in is what the manifests say; out may go anything.

locals {
  tags = { for name in concat(["nodes", "control", "worker", "edge", "storage"], var.bastion ? ["bastion"] : []) : name => "${var.site}-${name}" }

  # Ports of a class that are open to the same sources are one rule: a project may have only so many.
  opened = flatten([for class, rules in var.rules : [for rule in values(rules) : {
    class = class
    sources = rule.from_any ? [] : concat(
      length(rule.from_classes) == 4 ? ["nodes"] : rule.from_classes,
      rule.from_bastion ? ["bastion"] : [],
    )
    ranges     = rule.cidrs
    protocol   = rule.protocol
    port       = rule.from_port == rule.to_port ? tostring(rule.from_port) : "${rule.from_port}-${rule.to_port}"
    components = rule.components
  }]])
  grouped = { for rule in local.opened : "${rule.class}-${substr(sha256(jsonencode([rule.sources, rule.ranges])), 0, 8)}" => rule... }
}

resource "google_compute_firewall" "class" {
  for_each = local.grouped

  name          = "${var.site}-${each.key}"
  network       = var.network
  direction     = "INGRESS"
  description   = substr(join(", ", distinct(flatten(each.value[*].components))), 0, 2000)
  target_tags   = [local.tags[each.value[0].class]]
  source_tags   = length(each.value[0].sources) == 0 ? null : [for source in each.value[0].sources : local.tags[source]]
  source_ranges = length(each.value[0].ranges) == 0 ? null : each.value[0].ranges

  dynamic "allow" {
    for_each = toset(each.value[*].protocol)

    content {
      protocol = allow.value
      ports    = sort([for rule in each.value : rule.port if rule.protocol == allow.value])
    }
  }
}

resource "google_compute_firewall" "bastion" {
  count = var.bastion ? 1 : 0

  name          = "${var.site}-bastion"
  network       = var.network
  direction     = "INGRESS"
  description   = "SSH from the site's admin networks"
  target_tags   = [local.tags["bastion"]]
  source_ranges = var.admin

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}
