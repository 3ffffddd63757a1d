# A group a node class, and one that every node is in. What comes in is what the manifests say; out may go anything.

locals {
  descriptions = merge(
    {
      nodes   = "Every node of the site"
      control = "Nodes of the class control"
      worker  = "Nodes of the class worker"
      edge    = "Nodes of the class edge"
      storage = "Nodes of the class storage"
    },
    var.bastion ? { bastion = "The bastion, through which SSH goes" } : {},
  )
}

resource "openstack_networking_secgroup_v2" "class" {
  for_each = local.descriptions

  name                 = "${var.site}-${each.key}"
  description          = each.value
  delete_default_rules = true
  tags                 = var.tags
}

resource "openstack_networking_secgroup_rule_v2" "port" {
  for_each = var.ingress

  security_group_id = openstack_networking_secgroup_v2.class[each.value.class].id
  direction         = "ingress"
  ethertype         = "IPv4"
  protocol          = each.value.protocol
  port_range_min    = each.value.from_port
  port_range_max    = each.value.to_port
  remote_ip_prefix  = each.value.cidr
  remote_group_id   = each.value.source == null ? null : openstack_networking_secgroup_v2.class[each.value.source].id
  description       = each.value.description
}

resource "openstack_networking_secgroup_rule_v2" "bastion" {
  for_each = var.bastion ? toset(var.admin) : toset([])

  security_group_id = openstack_networking_secgroup_v2.class["bastion"].id
  direction         = "ingress"
  ethertype         = "IPv4"
  protocol          = "tcp"
  port_range_min    = 22
  port_range_max    = 22
  remote_ip_prefix  = each.value
  description       = "SSH from the site's admin networks"
}

resource "openstack_networking_secgroup_rule_v2" "out" {
  for_each = toset(concat(["nodes"], var.bastion ? ["bastion"] : []))

  security_group_id = openstack_networking_secgroup_v2.class[each.value].id
  direction         = "egress"
  ethertype         = "IPv4"
  description       = "Anywhere"
}
