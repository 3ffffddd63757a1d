# Octavia passes TCP on as it comes; behind it, connections come from the gateways' subnet.

locals {
  ports = { for port in var.ports : tostring(port) => port }
  members = merge([for key, port in local.ports : {
    for node, address in var.nodes : "${node}/${key}" => { node = node, address = address, port = key }
  }]...)
}

resource "openstack_lb_loadbalancer_v2" "front" {
  name           = var.name
  vip_subnet_id  = var.vip_subnet
  admin_state_up = true
  tags           = var.tags
}

resource "openstack_lb_listener_v2" "port" {
  for_each = local.ports

  name            = "${var.name}-${each.key}"
  loadbalancer_id = openstack_lb_loadbalancer_v2.front.id
  protocol        = "TCP"
  protocol_port   = each.value
  allowed_cidrs   = var.from
}

resource "openstack_lb_pool_v2" "port" {
  for_each = local.ports

  name        = "${var.name}-${each.key}"
  listener_id = openstack_lb_listener_v2.port[each.key].id
  protocol    = "TCP"
  lb_method   = "LEAST_CONNECTIONS"
}

resource "openstack_lb_monitor_v2" "port" {
  for_each = local.ports

  name        = "${var.name}-${each.key}"
  pool_id     = openstack_lb_pool_v2.port[each.key].id
  type        = "TCP"
  delay       = 10
  timeout     = 5
  max_retries = 2
}

resource "openstack_lb_member_v2" "node" {
  for_each = local.members

  name          = each.value.node
  pool_id       = openstack_lb_pool_v2.port[each.value.port].id
  subnet_id     = var.member_subnet
  address       = each.value.address
  protocol_port = local.ports[each.value.port]
}

resource "openstack_networking_floatingip_v2" "front" {
  pool        = var.external_network
  description = var.name
  port_id     = openstack_lb_loadbalancer_v2.front.vip_port_id
  tags        = var.tags
}
