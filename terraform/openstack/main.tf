# A site's machines on OpenStack: network, who may reach what, nodes, their volumes, load balancers, names.
# Credentials are the openstack command's: clouds.yaml (cloud, or OS_CLOUD), or the OS_* variables.

provider "openstack" {
  cloud  = var.cloud
  region = var.region
}

locals {
  bastion  = var.access == "bastion"
  gateways = cidrsubnet(var.network_cidr, 4, 0)
  tags     = concat(["ashlar-site=${module.ports.site}"], var.tags)

  # In front of which class a load balancer stands, for which ports, and who may reach it (null: anyone).
  balancers = { for class, balancer in {
    edge    = { wanted = var.edge_load_balancer, ports = [80, 443], from = null }
    control = { wanted = var.api_load_balancer, ports = [module.ports.api_port], from = module.ports.admin }
    } : class => balancer if balancer.wanted && anytrue([for node in module.pools.nodes : contains(node.classes, class)])
  }
}

module "ports" {
  source = "../modules/ports"

  site_folder = var.site_folder
  bastion     = local.bastion
  network     = var.network_cidr
  gateways = merge(
    local.bastion ? { "the bastion" = local.gateways } : {},
    var.api_load_balancer ? { "the API's load balancer" = local.gateways } : {},
  )
}

module "pools" {
  source = "../modules/pools"

  site  = module.ports.site
  zones = var.zones
  pools = var.pools
}

module "login" {
  source = "../modules/login"

  user            = var.user
  public_key_file = var.ssh_public_key
  site_folder     = var.site_folder
}

module "network" {
  source = "./modules/network"

  site             = module.ports.site
  external_network = var.external_network
  gateways         = local.gateways
  nodes            = cidrsubnet(var.network_cidr, 1, 1)
  dns_nameservers  = var.dns_nameservers
  tags             = local.tags
}

module "security" {
  source = "./modules/security"

  site    = module.ports.site
  ingress = module.ports.ingress
  admin   = module.ports.admin
  bastion = local.bastion
  tags    = local.tags
}

module "bastion" {
  source = "./modules/bastion"
  count  = local.bastion ? 1 : 0

  site             = module.ports.site
  size             = var.bastion_size
  image            = var.image
  zone             = var.zones[0]
  network          = module.network.network
  subnet           = module.network.gateway_subnet
  external_network = var.external_network
  security_group   = module.security.groups["bastion"]
  user_data        = module.login.user_data
  tags             = local.tags
}

module "nodes" {
  source = "./modules/nodes"

  site             = module.ports.site
  nodes            = module.pools.nodes
  image            = var.image
  public           = !local.bastion
  network          = module.network.network
  subnet           = module.network.node_subnet
  external_network = var.external_network
  groups           = module.security.groups
  user             = module.login.user
  user_data        = module.login.user_data
  boot_volume      = var.boot_volume
  volume_type      = var.volume_type
  control_spread   = var.control_spread
  tags             = local.tags
}

module "volumes" {
  source = "./modules/volumes"

  site      = module.ports.site
  volumes   = module.pools.volumes
  instances = module.nodes.ids
  zones     = var.volume_zones
  type      = var.volume_type
}

module "load_balancer" {
  source   = "./modules/load_balancer"
  for_each = local.balancers

  name             = "${module.ports.site}-${each.key == "control" ? "api" : each.key}"
  vip_subnet       = module.network.gateway_subnet
  member_subnet    = module.network.node_subnet
  external_network = var.external_network
  ports            = each.value.ports
  from             = each.value.from
  nodes            = { for name, node in module.pools.nodes : name => module.nodes.private_ips[name] if contains(node.classes, each.key) }
  tags             = local.tags
}

module "dns" {
  source = "./modules/dns"
  count  = var.dns_zone == null ? 0 : 1

  zone      = var.dns_zone
  domain    = module.ports.domain
  addresses = { for record, it in module.machines.records : record => it.addresses }
}

module "machines" {
  source = "../modules/machines"

  nodes          = module.pools.nodes
  ids            = module.nodes.ids
  private_ips    = module.nodes.private_ips
  public_ips     = module.nodes.public_ips
  zones          = module.nodes.zones
  region         = var.region
  user           = module.login.user
  devices        = module.volumes.devices
  bastion        = one(module.bastion[*].address)
  load_balancers = { for class, balancer in module.load_balancer : class => balancer.address }
}
