# Machines for trying and testing a site: systemd containers on this machine, by what every Terraform and OpenTofu has built in.
# The work is done by roles/local_nodes: the machine, network, keys and image once a site, a container a node.

module "ports" {
  source      = "../modules/ports"
  site_folder = var.site_folder
}

module "pools" {
  source = "../modules/pools"
  site   = module.ports.site
  zones  = var.zones
  pools  = { for name, pool in var.pools : name => merge(pool, { size = "local" }) }
}

locals {
  repository = abspath("${path.module}/../..")
  folder     = abspath(var.site_folder)
  records    = "${local.folder}/state/local_nodes"
  # The checkout is in all names, so two of them on one machine do not collide.
  prefix  = "ashlar-${module.ports.site}-${substr(sha256(local.repository), 0, 6)}"
  network = coalesce(var.network, cidrsubnet("10.64.0.0/12", 8, parseint(substr(sha256(local.prefix), 0, 2), 16)))

  # A pool has 64 addresses by its name and a node one of them by its number, whatever other pools and nodes there are.
  block     = { for pool in keys(var.pools) : pool => 1 + parseint(substr(sha256(pool), 0, 4), 16) % 62 }
  addresses = { for name, node in module.pools.nodes : name => cidrhost(local.network, 64 * local.block[node.pool] + node.number) }
  crowded   = [for name, pool in var.pools : name if pool.count > 63 || length([for block in values(local.block) : block if block == local.block[name]]) > 1]

  # What roles/local_nodes/files/node.sh remembers of a container: id, witness (a file that podman has as long as the container is there), generation.
  records_there = { for name in keys(module.pools.nodes) : name => try(jsondecode(file("${local.records}/${name}")), null) }
}

# Every apply and destroy begins or ends with it: whatever a killed run or a failed node left goes with the site.
resource "terraform_data" "site" {
  input            = { script = "${local.repository}/roles/local_nodes/files/node.sh", prefix = local.prefix, folder = local.folder }
  triggers_replace = [local.prefix, local.folder, local.network]

  provisioner "local-exec" {
    when        = destroy
    command     = "\"$SCRIPT\" sweep"
    environment = { SCRIPT = self.input.script, LOCAL_NODES_PREFIX = self.input.prefix, LOCAL_NODES_FOLDER = self.input.folder }
  }

  lifecycle {
    precondition {
      condition     = length(local.crowded) == 0
      error_message = "Pools ${join(", ", local.crowded)} do not fit: a pool has 64 addresses here, chosen by its name. Allowed: at most 63 nodes in a pool; if two are named here, call one of them otherwise."
    }
  }
}

# Packages of this machine, the network, the login key and the node image: seconds, and about a minute where the image is not there yet.
resource "terraform_data" "ready" {
  triggers_replace = [terraform_data.site.id]

  provisioner "local-exec" {
    interpreter = ["/bin/bash", "-c"]
    working_dir = local.repository
    command     = <<-EOT
      export PATH="$PWD/.venv/bin:$PATH"
      exec ansible-playbook -i localhost, playbooks/local_nodes.yml -e "$SETTINGS"
    EOT
    environment = {
      SETTINGS = jsonencode({
        local_nodes_state     = "prepared"
        local_nodes_site      = module.ports.site
        local_nodes_prefix    = local.prefix
        local_nodes_inventory = local.folder
        local_nodes_network   = local.network
      })
    }
  }
}

# How often a node was lost (somebody removed its container) and has to be made again. It is read here, so that a plan says what is lost.
resource "terraform_data" "generation" {
  for_each = module.pools.nodes
  input = local.records_there[each.key] == null ? 0 : (
    local.records_there[each.key].generation + (fileexists(local.records_there[each.key].witness) ? 0 : 1)
  )
}

resource "terraform_data" "node" {
  for_each = module.pools.nodes
  input = {
    script = "${local.repository}/roles/local_nodes/files/node.sh"
    prefix = local.prefix
    folder = local.folder
  }
  triggers_replace = [terraform_data.site.id, local.addresses[each.key], terraform_data.generation[each.key].output]
  depends_on       = [terraform_data.ready]

  provisioner "local-exec" {
    command = "\"$SCRIPT\" make \"$NODE\" \"$ADDRESS\" && \"$SCRIPT\" await \"$NODE\" \"$ADDRESS\""
    environment = {
      SCRIPT                 = self.input.script
      NODE                   = each.key
      ADDRESS                = local.addresses[each.key]
      LOCAL_NODES_PREFIX     = self.input.prefix
      LOCAL_NODES_FOLDER     = self.input.folder
      LOCAL_NODES_GENERATION = terraform_data.generation[each.key].output
    }
  }

  provisioner "local-exec" {
    when        = destroy
    command     = "\"$SCRIPT\" remove \"$NODE\""
    environment = { SCRIPT = self.input.script, NODE = each.key, LOCAL_NODES_PREFIX = self.input.prefix, LOCAL_NODES_FOLDER = self.input.folder }
  }
}

locals {
  # Known once the node is made: the resource's id keeps these files from being read before.
  made = { for name, node in terraform_data.node : name => {
    record   = try(jsondecode(file(node.id == "" ? "" : "${local.records}/${name}")), null)
    host_key = try(join(" ", slice(split(" ", trimspace(file(node.id == "" ? "" : "${local.folder}/credentials/ssh/nodes/${name}.pub"))), 0, 2)), null)
  } }
}

module "contract" {
  source = "../modules/contract"
  nodes = { for name, node in module.pools.nodes : name => {
    id            = try(local.made[name].record.id, null)
    classes       = node.classes
    private_ip    = local.addresses[name]
    user          = "root"
    zone          = node.zone
    labels        = node.labels
    ssh_host_keys = try([local.made[name].host_key], null)
  } }
}
