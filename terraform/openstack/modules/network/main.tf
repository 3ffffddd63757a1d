# One network with two subnets, gateways (bastion, load balancers) and nodes, behind a router that leads outside by NAT.

data "openstack_networking_network_v2" "external" {
  name     = var.external_network
  external = true
}

resource "openstack_networking_network_v2" "site" {
  name           = var.site
  admin_state_up = true
  tags           = var.tags
}

resource "openstack_networking_subnet_v2" "site" {
  for_each = { gateways = var.gateways, nodes = var.nodes }

  name            = "${var.site}-${each.key}"
  network_id      = openstack_networking_network_v2.site.id
  ip_version      = 4
  cidr            = each.value
  dns_nameservers = var.dns_nameservers
  tags            = var.tags
}

resource "openstack_networking_router_v2" "site" {
  name                = var.site
  admin_state_up      = true
  external_network_id = data.openstack_networking_network_v2.external.id
  tags                = var.tags

  # A network outside that was made anew under its old name would take every floating address with it.
  lifecycle {
    ignore_changes = [external_network_id]
  }
}

resource "openstack_networking_router_interface_v2" "site" {
  for_each = openstack_networking_subnet_v2.site

  router_id = openstack_networking_router_v2.site.id
  subnet_id = each.value.id
}
